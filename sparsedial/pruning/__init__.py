"""Parts of a checkpoint turned off: scores, what stays, the smaller folder, its four costs."""
