//! Follower fetchers: one connection per leader broker over the inter-broker listener.
