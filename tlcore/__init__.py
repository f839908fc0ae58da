"""tlcore: transfer learning from a folder of images to a proven ONNX file, with the evidence for every choice."""

__version__ = "0.1.0"
