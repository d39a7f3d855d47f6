/* words.c - word lists of the text tasks. A key or a value of kind "words" is an adjective and a noun, "calm-harbor".
 */
#include "task/words.h"

const char mn_words_noise[] = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

const char *const mn_adjectives[MN_ADJECTIVES] = {
    "able",   "agile",  "amber",   "ancient",  "arctic", "autumn",  "azure",  "bold",     "brave",  "brief",   "bright", "broken",
    "bronze", "calm",   "careful", "cheerful", "clever", "cloudy",  "cold",   "copper",   "cosmic", "crimson", "crisp",  "curious",
    "daring", "deep",   "distant", "eager",    "early",  "elegant", "faint",  "famous",   "fancy",  "fierce",  "formal", "fragile",
    "free",   "fresh",  "frozen",  "gentle",   "giant",  "glad",    "golden", "graceful", "grand",  "happy",   "hidden", "hollow",
    "honest", "humble", "idle",    "jolly",    "keen",   "kind",    "large",  "late",     "light",  "lively",  "lonely", "loyal",
    "lucky",  "magic",  "mellow",  "merry",    "mighty", "misty",   "modest", "narrow",   "noble",  "odd",     "open",   "patient",
    "plain",  "polite", "proud",   "quick",    "quiet",  "rapid",   "rare",   "royal",    "rustic", "secret",  "serene", "shiny",
    "silent", "silver", "simple",  "smooth",   "soft",   "solid",   "steady", "strong",   "subtle", "swift",   "tender", "tidy",
    "vast",   "warm",   "wild",    "wise",
};

const char *const mn_nouns[MN_NOUNS] = {
    "acorn",   "anchor",   "apple",   "apron",   "arrow",   "atlas",   "badge",   "bakery",  "balloon", "banjo",   "barrel",   "basket",
    "beacon",  "bench",    "berry",   "bicycle", "blanket", "boat",    "bottle",  "bridge",  "brook",   "bucket",  "button",   "cabin",
    "cactus",  "camel",    "candle",  "canoe",   "canyon",  "carpet",  "castle",  "cedar",   "cellar",  "chair",   "chapel",   "cherry",
    "chimney", "circle",   "clock",   "cloud",   "coast",   "coin",    "comet",   "compass", "coral",   "cottage", "cradle",   "crane",
    "cricket", "crown",    "crystal", "curtain", "dagger",  "daisy",   "desert",  "diamond", "dolphin", "donkey",  "dragon",   "drum",
    "eagle",   "ember",    "engine",  "falcon",  "feather", "fence",   "ferry",   "fiddle",  "field",   "flag",    "flute",    "forest",
    "fossil",  "fountain", "fox",     "garden",  "gate",    "ginger",  "glacier", "glove",   "goose",   "granite", "grove",    "guitar",
    "hammer",  "harbor",   "hazel",   "helmet",  "hill",    "honey",   "horizon", "hotel",   "island",  "ivory",   "jacket",   "jewel",
    "kettle",  "kitten",   "ladder",  "lagoon",  "lantern", "laurel",  "lemon",   "library", "lily",    "lion",    "lizard",   "lobster",
    "locket",  "lotus",    "maple",   "marble",  "market",  "meadow",  "medal",   "mirror",  "mitten",  "monkey",  "mountain", "museum",
    "napkin",  "nest",     "oak",     "ocean",   "olive",   "orchard", "otter",   "oyster",  "palace",  "panther", "paper",    "parrot",
    "pebble",  "pencil",   "pepper",  "piano",   "pigeon",  "pillow",  "pirate",  "planet",  "plum",    "pocket",  "pond",     "poppy",
    "prairie", "pyramid",  "quarry",  "quilt",   "rabbit",  "raft",    "raven",   "river",   "rocket",  "saddle",  "sail",     "sparrow",
    "spoon",   "statue",   "tower",   "tulip",
};
