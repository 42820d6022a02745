"""One file per activity: a plain function that takes its dependencies as arguments."""
