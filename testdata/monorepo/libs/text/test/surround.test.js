const test = require("node:test");
const assert = require("node:assert");
const { surround, words } = require("../dist/index.js");

test("a text is put between two others", () => {
  assert.equal(surround("x", "<", ">"), "<x>");
  assert.equal(surround("x", "*"), "*x*");
});

test("generated words are there", () => {
  assert.equal(words.tea, "Grüner Tee");
});
