# SPDX-License-Identifier: GPL-3.0-or-later
"""Diagnostics: does Koshi work in this Blender, and does its backend? Shown in the preferences."""

from __future__ import annotations

from typing import Any

import bpy

from . import cli_doctor, compat, job, settings, start, state
from .pumped import PumpedOperator


class KOSHI_OT_diagnose(PumpedOperator, bpy.types.Operator):
    """Try everything that Koshi needs, in Blender and in the backend, which takes some seconds"""

    bl_idname = "koshi.diagnose"
    bl_label = "Koshi Diagnostics"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return state.idle(cls)

    def begin(self, context: bpy.types.Context) -> job.Job:
        checks = cli_doctor.blender_checks()
        report = {"blender": {"checks": checks}, "backend": None}
        python = checks[2]["found"] if checks[2]["ok"] else ""
        state.report = None
        return start.diagnose(compat.edited_scene(context), python, settings.source(), report)


class KOSHI_OT_copy_report(bpy.types.Operator):
    """Copy the diagnostics as text, to ask for help with"""

    bl_idname = "koshi.copy_report"
    bl_label = "Copy Diagnostics"
    bl_options = {'INTERNAL'}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if state.report is None:
            cls.poll_message_set("Press Diagnostics first")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        context.window_manager.clipboard = "\n".join(text(check) for check in checks(state.report or {}))
        return {'FINISHED'}


def checks(report: dict[str, Any]) -> list[dict[str, Any]]:
    """All checks of a report: Blender's, then the backend's."""
    found = list(report["blender"]["checks"])
    return found + list(report["backend"]["checks"] if report.get("backend") else ())


def text(check: dict[str, Any]) -> str:
    """One check as a line, with what to do below it."""
    said = f"{'ok  ' if check['ok'] else 'FAIL'}  {check['name']}: {check['found']}"
    return f"{said}\n      {check['hint']}" if check["hint"] else said


register, unregister = bpy.utils.register_classes_factory((KOSHI_OT_diagnose, KOSHI_OT_copy_report))
