"""What is done to data while no server runs on it: check, verify, recover, restore, dump. No sockets."""
