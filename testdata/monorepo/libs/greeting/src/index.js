// Greets.
const { surround } = require("@example/text");
const words = require("./words.js");

/** A greeting for a name. */
exports.greet = (name) => surround(`${words.hello}, ${name}`, "* ", " *");
