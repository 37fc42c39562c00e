//! A server block's plugins in their fixed order.
