"""What a run leaves on disk: its folder, events, results, audit heads."""
