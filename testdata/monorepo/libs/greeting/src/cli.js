#!/usr/bin/env node
const { greet } = require("./index.js");
console.log(greet(process.argv[2] ?? "world"));
