"""Load: people who join, send and receive as browsers do, as many as a machine can play."""
