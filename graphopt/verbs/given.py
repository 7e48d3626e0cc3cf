"""What all verbs share: what a model may be, and whom to tell what begins."""

from __future__ import annotations

import logging
import os
from typing import Any

import onnx
import onnx_ir as ir

__all__ = ["LOG", "Model"]

LOG = logging.getLogger("graphopt")

Model = str | os.PathLike[str] | onnx.ModelProto | ir.Model | Any
"""A path, an `onnx.ModelProto`, an `onnx_ir.Model`, or torch's `ONNXProgram`."""
