"""The sparse layer: a readable reference and its fast twins; whole layers in one compiled call on CPU."""
