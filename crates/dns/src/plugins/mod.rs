//! What each plugin of a server block does with a query: a file or folder a plugin, each pure
//! over its options, the query, and the time.
