"""graphopt makes exported ONNX models smaller and faster, and proves that they still do their job."""
