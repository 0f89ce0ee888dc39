"""The docks: thin Qt around the session; nothing is computed here."""
