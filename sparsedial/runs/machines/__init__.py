"""The machines of a study: workers that join it, what lets them in, and launchers that start them."""
