"""A student leaves: as a transformers folder, for CTranslate2, ONNX Runtime and whisper.cpp, each checked by ear."""
