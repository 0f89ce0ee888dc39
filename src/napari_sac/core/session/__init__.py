"""What has been decided about an image: undo, journal on disk, sessions, replay."""
