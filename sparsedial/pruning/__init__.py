"""Parts of a checkpoint turned off: scores of experts, which stay, the smaller folder, its four costs."""
