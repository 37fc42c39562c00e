//! The built-in image table: which program stands for which image.
