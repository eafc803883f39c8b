"""The public MQTT interface and the client that speaks it."""
