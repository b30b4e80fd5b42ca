// Functions on text.
const words = require("./words.js");

/** Puts a text between two others. */
exports.surround = (text, before, after = before) => `${before}${text}${after}`;

/** The words that the generator knows. */
exports.words = words;
