# SPDX-License-Identifier: GPL-3.0-or-later
"""The workspace of a new project: a preview, the camera's view with Koshi's tab, properties, and a low sequencer."""

from __future__ import annotations

import math
import os

import bpy

from . import compat

WORKSPACE = "Koshi"
PREVIEW, PROPERTIES = 0.28, 0.17  # parts of the window's width
SEQUENCER = 0.28, 210  # of its height, and how many pixels it has at least
TIMELINE = 30  # pixels
CHANNELS = 6  # in the sequencer's height, of which the scale of frames and the markers hide two
_tries = 0


def add(scene: bpy.types.Scene) -> None:
    """Add the workspace "Koshi", made of Blender's own for video editing, and go there."""
    template = os.path.join(
        bpy.utils.system_resource('SCRIPTS'), "startup", "bl_app_templates_system", "Video_Editing", "startup.blend"
    )
    if not os.path.isfile(template):
        return  # a Blender without its templates; the file works as it is
    before = set(bpy.data.workspaces)
    bpy.ops.workspace.append_activate(idname="Video Editing", filepath=template)
    for workspace in set(bpy.data.workspaces) - before:
        workspace.name = WORKSPACE
        if hasattr(workspace, "sequencer_scene"):
            workspace.sequencer_scene = scene
    if not bpy.app.background:
        global _tries
        _tries = 40
        # Blender goes there after this operator, and draws an editor before its sidebar has tabs.
        bpy.app.timers.register(_arrange, first_interval=0.05)


def stop() -> None:
    """Leave a window as far as it is arranged."""
    if bpy.app.timers.is_registered(_arrange):
        bpy.app.timers.unregister(_arrange)


def _arrange() -> float | None:
    """Divide the window, and show the camera's view with Koshi's tab; ends once it is so."""
    global _tries
    _tries -= 1
    window = bpy.context.window_manager.windows[0]
    again = 0.05 if _tries > 0 else None
    if not window.workspace.name.startswith(WORKSPACE):
        return again
    compat.show_in_sequencers(window.scene)
    areas = window.screen.areas
    if any(area.type == 'FILE_BROWSER' for area in areas):
        _divide(window)
        return again  # an editor that was just made has no parts yet: 5.2 crashes when its view is chosen
    _set_sequencers(areas)
    view = next((area for area in areas if area.type == 'VIEW_3D'), None)
    if view is None:
        return None
    space = view.spaces.active
    space.region_3d.view_perspective = 'CAMERA'
    space.show_region_ui, space.show_region_toolbar = True, False
    space.shading.type = 'SOLID'
    space.shading.color_type = 'MATERIAL'
    bar = next(region for region in view.regions if region.type == 'UI')
    try:
        if bar.active_panel_category != "Koshi":
            bar.active_panel_category = "Koshi"
            return again  # once more when the window has been drawn with all its new sizes
    except (AttributeError, TypeError):  # not drawn yet
        return again
    _show_all(window)
    return None


def _divide(window: bpy.types.Window) -> None:
    """Preview, camera's view and properties above, the sequencer below: the template leaves it half of the window.

    (Its edges cannot be moved: Blender lets no operator do so while the mouse is over an editor.)
    """
    while len(window.screen.areas) > 1:
        smallest = min(window.screen.areas, key=lambda area: area.width * area.height)
        with bpy.context.temp_override(window=window, area=smallest):
            if bpy.ops.screen.area_close() != {'FINISHED'}:
                return
    (above,) = window.screen.areas
    scale = bpy.context.preferences.system.ui_scale / window.height
    if "show_region_footer" not in bpy.types.SpaceSequenceEditor.bl_rna.properties:
        # Before 5.0 the buttons to play are in a timeline, of which its header is enough.
        _cut(window, above, 'HORIZONTAL', TIMELINE * scale).ui_type = 'TIMELINE'
    low = max(SEQUENCER[0], SEQUENCER[1] * scale)
    below = _cut(window, above, 'HORIZONTAL', low)
    left = _cut(window, above, 'VERTICAL', PREVIEW)
    right = _cut(window, above, 'VERTICAL', 1.0 - PROPERTIES / (1.0 - PREVIEW))
    above.type, below.type, left.type, right.type = 'VIEW_3D', 'SEQUENCE_EDITOR', 'SEQUENCE_EDITOR', 'PROPERTIES'


def _set_sequencers(areas: list[bpy.types.Area]) -> None:
    """The lower one shows strips, the other the picture."""
    found = sorted((area for area in areas if area.type == 'SEQUENCE_EDITOR'), key=lambda area: area.y)
    for area, shown in zip(found, ('SEQUENCER', 'PREVIEW'), strict=False):
        space = area.spaces.active
        space.view_type = shown
        space.show_region_ui = False  # as 5.0 has it: Koshi's tab is in the 3D view
        if shown == 'PREVIEW':
            space.show_region_toolbar = False
            space.preview_overlay.show_metadata = False
            if hasattr(space, "show_region_footer"):
                space.show_region_footer = False


def _cut(window: bpy.types.Window, area: bpy.types.Area, direction: str, factor: float) -> bpy.types.Area:
    """Cut an editor in two, at a part of it from the left or from below. Returns the smaller one, which is new, and can
    be cut itself only once the window was drawn."""
    before = set(window.screen.areas)
    with bpy.context.temp_override(window=window, area=area):
        bpy.ops.screen.area_split(direction=direction, factor=factor)
    (made,) = set(window.screen.areas) - before
    return made


def _fit_beside(view: bpy.types.Area, region: bpy.types.Region) -> None:
    """The camera's frame as large as it fits beside the sidebar, in the middle of what is free."""
    space, render = view.spaces.active.region_3d, bpy.context.scene.render
    bar = next(one.width for one in view.regions if one.type == 'UI')
    if not bpy.context.preferences.system.use_region_overlap:
        bar = 0  # the view ends where it begins
    wide = min(region.width, region.height * render.resolution_x / render.resolution_y)
    scale = (math.sqrt(2) + space.view_camera_zoom / 50) ** 2 / 4  # as Blender counts
    scale *= min(1.0, max(0.2, 0.95 * (region.width - bar) / wide))
    space.view_camera_zoom = (math.sqrt(4 * scale) - math.sqrt(2)) * 50
    space.view_camera_offset = (bar / 4 / region.width / scale, 0.0)


def _show_all(window: bpy.types.Window) -> None:
    """The camera's frame and the whole shot as large as they fit."""
    for area in window.screen.areas:
        area.tag_redraw()
        region = next(region for region in area.regions if region.type == 'WINDOW')
        with bpy.context.temp_override(window=window, area=area, region=region):
            if area.type == 'VIEW_3D' and bpy.ops.view3d.view_center_camera.poll():
                bpy.ops.view3d.view_center_camera()
                _fit_beside(area, region)
            elif area.type == 'SEQUENCE_EDITOR' and bpy.ops.sequencer.view_all.poll():
                bpy.ops.sequencer.view_all()
                if area.spaces.active.view_type == 'SEQUENCER':
                    area.spaces.active.show_seconds = False  # keys and prompts are spoken of by their frames
                    bpy.ops.view2d.pan(deltax=-round(14 * bpy.context.preferences.system.ui_scale))  # all of frame 1
                    low, high = (region.view2d.region_to_view(0, y)[1] for y in (0, region.height))
                    top = round(region.height * CHANNELS / (high - low))
                    bpy.ops.view2d.zoom_border(xmin=0, xmax=region.width, ymin=0, ymax=top)
