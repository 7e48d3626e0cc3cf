"""Everything that executes a model. The only folder that imports onnxruntime."""
