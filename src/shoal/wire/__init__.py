"""Bytes on the wire: messages, codec, and the HTTP connection that carries them."""
