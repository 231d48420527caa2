// The words of the live figures: one table a figure. {n} stands for a value; where a sentence depends on
// a number n, it stands in each of its forms (Intl.PluralRules).

Live.words({
  common: {
    reset: "Reset",
    cancel: "Cancel",
    tryAgain: "Try again",
    loadingLabel: "Loading the model",
    model: {
      idle: "The examples are stored in the page. With your first own words, the model itself ({size} MB) loads into it, once; what you type stays on your device.",
      loading: "Loading the model, {size} MB: {percent}",
      ready: "The model runs in this page, on your device.",
      failed: "The model could not be loaded.",
    },
    spam: "spam",
    ham: "not spam",
    yourMessage: "Your message",
    examples: "Examples",
    padding: "padding",
  },

  classifier: {
    placeholder: "Type a message",
    probability: "Probability of spam",
    before: "before fine-tuning",
    after: "after fine-tuning",
    threshold: "threshold {value}",
    tokens: "What each token did to the decision",
    legendHam: "towards not spam",
    legendSpam: "towards spam",
    hint: "Choose a token to read the message without it.",
    without: "Without “{token}”, the probability of spam is {without} in place of {with}.",
    working: "Leaving out one token at a time …",
    cut: "{n} tokens; the classifier reads the first {max}.",
    count: { one: "{n} token, padded to {max}.", other: "{n} tokens, padded to {max}." },
    empty: "An empty message: the model reads {max} tokens of padding.",
    said: "Before fine-tuning {before}, after fine-tuning {after} probability of spam: {label}.",
    effect: "{token}, {effect}",
    exampleNames: ["A prize", "From a friend", "A bank?"],
  },
});
