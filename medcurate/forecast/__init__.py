"""What a build will take, told before it begins; nothing is opened, fetched or written."""
