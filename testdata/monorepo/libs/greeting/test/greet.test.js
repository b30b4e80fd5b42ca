const test = require("node:test");
const assert = require("node:assert");
const { greet } = require("../dist/index.js");

test("a greeting has the name", () => {
  assert.equal(greet("Jürgen"), "* Hello, Jürgen *");
});
