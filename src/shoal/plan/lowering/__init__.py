"""From core operators of torch to ONNX, one function for each."""
