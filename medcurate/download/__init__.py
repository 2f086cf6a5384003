"""Files from elsewhere: fetched, resumed, checked while they stream, and recorded. Never half a file under its name."""
