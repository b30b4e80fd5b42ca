// Writes a module of constants from a JSON file. Lines that begin with // are for readers of the JSON only.
const fs = require("node:fs");
const [, , from, to] = process.argv;
const text = fs.readFileSync(from, "utf8").split("\n").filter((line) => !line.trimStart().startsWith("//")).join("\n");
const words = JSON.parse(text);
const lines = Object.keys(words).sort().map((name) => `exports.${name} = ${JSON.stringify(words[name])};\n`);
fs.mkdirSync("out", { recursive: true });
fs.writeFileSync(to, lines.join(""));
