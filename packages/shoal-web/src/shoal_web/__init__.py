"""The files of an ONNX runtime for browsers, in the folder `files`; a coordinator finds them by itself."""
