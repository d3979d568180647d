"""`gtool export`: ONNX and pt2 files."""
