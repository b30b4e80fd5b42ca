module.exports = "words"
