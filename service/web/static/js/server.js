// The page of a server.
