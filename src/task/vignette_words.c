/* vignette_words.c - the words of vignettes: 23 groups of ten nouns, and sentences without any of them, as many as are asked for. */
#include "task/vignette.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

const char *const mn_vignette_nouns[MN_VIGNETTE_LISTS][MN_VIGNETTE_NOUNS] = {
    {"arm", "elbow", "shoulder", "knee", "ankle", "wrist", "thumb", "neck", "chin", "heel"},
    {"apple", "pear", "plum", "cherry", "lemon", "peach", "grape", "melon", "fig", "apricot"},
    {"horse", "cow", "sheep", "goat", "pig", "donkey", "hen", "duck", "goose", "mule"},
    {"wolf", "fox", "bear", "deer", "otter", "badger", "hare", "lynx", "beaver", "moose"},
    {"eagle", "owl", "raven", "sparrow", "robin", "swan", "heron", "stork", "falcon", "pigeon"},
    {"hammer", "saw", "chisel", "drill", "pliers", "wrench", "shovel", "rake", "axe", "anvil"},
    {"table", "chair", "sofa", "desk", "shelf", "cupboard", "stool", "bench", "wardrobe", "couch"},
    {"kitchen", "bedroom", "cellar", "attic", "hallway", "pantry", "bathroom", "nursery", "library", "parlour"},
    {"ferry", "canoe", "yacht", "raft", "barge", "schooner", "tanker", "frigate", "dinghy", "trawler"},
    {"shirt", "coat", "scarf", "glove", "hat", "skirt", "jacket", "belt", "sock", "sweater"},
    {"violin", "flute", "trumpet", "drum", "harp", "piano", "cello", "guitar", "banjo", "clarinet"},
    {"iron", "copper", "silver", "gold", "lead", "tin", "zinc", "nickel", "steel", "brass"},
    {"oak", "pine", "birch", "maple", "willow", "elm", "cedar", "beech", "poplar", "spruce"},
    {"rose", "tulip", "lily", "daisy", "violet", "orchid", "iris", "poppy", "jasmine", "lilac"},
    {"carrot", "onion", "potato", "cabbage", "turnip", "pepper", "spinach", "celery", "radish", "pumpkin"},
    {"doctor", "lawyer", "baker", "tailor", "farmer", "sailor", "teacher", "painter", "butcher", "plumber"},
    {"spoon", "fork", "knife", "plate", "bowl", "kettle", "ladle", "cup", "pan", "jug"},
    {"rain", "snow", "hail", "fog", "thunder", "lightning", "frost", "storm", "breeze", "drizzle"},
    {"mother", "father", "brother", "sister", "uncle", "aunt", "cousin", "nephew", "niece", "grandson"},
    {"car", "bus", "truck", "tram", "bicycle", "wagon", "tractor", "taxi", "scooter", "van"},
    {"ant", "bee", "wasp", "moth", "beetle", "cricket", "mosquito", "butterfly", "locust", "hornet"},
    {"church", "school", "hospital", "prison", "factory", "theatre", "museum", "castle", "palace", "barn"},
    {"cotton", "wool", "silk", "linen", "velvet", "nylon", "leather", "denim", "satin", "lace"}};

/* A sentence is one of each column, put together. */
enum { WAYS = 10, PARTS = 4 };
typedef const char *const sentences[PARTS][WAYS];

static sentences story = {
    {"After that", "A little later", "Towards evening", "In the meantime", "As soon as she could", "Without a word", "Once more",
     "The next day", "For a while", "Much to her surprise"},
    {" she walked down to the river", " she thought of her old friends", " a stranger asked her the way", " nobody came to the door",
     " the children played in the street", " she opened one of the letters", " her neighbour told her the news",
     " she waited at the corner", " the music began again", " she counted the hours"},
    {", and it was colder than before", ", while the town grew quiet", ", though she had other plans", ", because there was still time",
     ", until the bells rang", ", as if nothing had happened", ", and everybody laughed about it", ", where she had been so often",
     ", just as she had hoped", ", although the day was short"},
    {".", ".", ", so she went home.", ".", " and the lamps were lit.", ".", ", as people do.", ".", ", or so it seemed.", "."}};

static sentences sea = {{"The water of the southern ocean", "A current from the north", "The tide on an open coast",
                         "The bottom of a deep basin", "The salt of an inland sea", "A wave that meets the shore",
                         "The ice of the polar waters", "The colour of a shallow bay", "The mud of a great river",
                         "The depth of a narrow strait"},
                        {" was first measured by travellers", " is seldom found to change", " depends on the season of the year",
                         " has been described with great care", " differs from place to place", " carries sand and small stones",
                         " moves at a rate of two miles an hour", " is known from a hundred soundings", " rises and falls with the moon",
                         " becomes heavier as it cools"},
                        {", according to the older authors", ", and the reason is not certain", ", except below the surface",
                         ", where the pressure is enormous", ", as may be seen from the chart", ", which explains the saltness",
                         ", and then sinks by its own weight", ", but never near the equator", ", by the action of the winds",
                         ", within the same degree of latitude"},
                        {".", " of the globe.", ".", ".", " of its extent.", ".", ".", " in all cases.", ".", "."}};

void mn_vignette_story(mn_rng *rng, bool incongruent, size_t words, mn_text *out) {
  sentences *of = incongruent ? &sea : &story;
  size_t n = 0, begin = out->len;
  while (n < words) {
    if (n) mn_text_add(out, " ");
    const size_t at = out->len;
    for (int k = 0; k < PARTS; k++) mn_text_add(out, (*of)[k][mn_rng_below(rng, WAYS)]);
    if (mn_text_status(out) != MN_OK) return;
    n++;
    for (size_t i = at; i < out->len; i++) {
      if (out->data[i] != ' ' || ++n <= words) continue;
      out->len = i; /* the sentence ends here, as sentences do */
      while (out->len > begin && !isalpha((unsigned char)out->data[out->len - 1])) out->len--;
      mn_text_add(out, ".");
      return;
    }
  }
}

enum { MOST_SCRAMBLED = 4096 }; /* words of a sentence, sentences of a story */

/* Words of each sentence, and the sentences, in another order; each begins with a capital and ends with a full stop again. */
mn_status mn_vignette_scramble(mn_rng *rng, const char *text, mn_text *out) {
  char *copy = mn_strdup(text);
  const char **word = mn_alloc(MOST_SCRAMBLED * sizeof *word), **sentence = mn_alloc(MOST_SCRAMBLED * sizeof *sentence);
  int32_t *order = mn_alloc(MOST_SCRAMBLED * sizeof *order), *place = mn_alloc(MOST_SCRAMBLED * sizeof *place);
  int n = 0;
  mn_status status = copy && word && sentence && order && place ? MN_OK : MN_ERR_MEMORY;
  for (char *s = copy; status == MN_OK && s && *s;) {
    char *end = strchr(s, '.');
    if (n == MOST_SCRAMBLED) status = mn_fail(MN_ERR_CONFIG, "a scrambled story has at most %d sentences; ask for a shorter delay", n);
    else sentence[n++] = s;
    if (!end) break;
    *end = 0;
    s = end + 1;
    while (*s == ' ') s++;
  }
  for (int i = 0; i < n; i++) order[i] = i;
  if (status == MN_OK) mn_rng_shuffle(rng, order, (size_t)n);
  for (int i = 0; status == MN_OK && i < n; i++) {
    int words = 0;
    for (char *w = (char *)sentence[order[i]]; w && *w && words < MOST_SCRAMBLED;) {
      char *end = strchr(w, ' ');
      if (end) *end = 0;
      const size_t len = strlen(w);
      if (len && w[len - 1] == ',') w[len - 1] = 0;
      word[words] = w;
      place[words] = words;
      words++;
      w = end ? end + 1 : NULL;
    }
    mn_rng_shuffle(rng, place, (size_t)words);
    if (i) mn_text_add(out, " ");
    for (int k = 0; k < words; k++) {
      const char *w = word[place[k]];
      const char first = (char)(k ? place[k] ? w[0] : tolower((unsigned char)w[0]) : toupper((unsigned char)w[0]));
      mn_text_addf(out, "%s%c%s", k ? " " : "", first, w + 1);
    }
    mn_text_add(out, ".");
  }
  free(copy);
  free(word);
  free(sentence);
  free(order);
  free(place);
  return status == MN_OK ? mn_text_status(out) : status;
}

/* ---- controls ---- */

static mn_status replace_all(mn_text *text, const char *from, const char *to) {
  mn_text out = {0};
  const char *s = text->data ? text->data : "";
  for (const char *at; (at = strstr(s, from)); s = at + strlen(from)) {
    mn_text_add_bytes(&out, s, (size_t)(at - s));
    mn_text_add(&out, to);
  }
  mn_text_add(&out, s);
  MN_TRY(mn_text_status(&out));
  mn_text_free(text);
  *text = out;
  return MN_OK;
}

/* "One morning Clara wrote: " -> "Wrote one Clara morning: ", letters as they were. */
static mn_status shuffle_words(mn_rng *rng, mn_text *text) {
  enum { MOST = 16 };
  const char *word[MOST], *before[MOST];
  char *colon = strrchr(text->data, ':');
  int32_t order[MOST];
  int n = 0;
  if (!colon) return mn_fail(MN_ERR_INTERNAL, "no colon in '%s'", text->data);
  mn_text out = {0};
  char *copy = mn_strdup(text->data);
  if (!copy) return MN_ERR_MEMORY;
  copy[colon - text->data] = 0;
  for (char *w = copy, *end; w && n < MOST; w = end) {
    if ((end = strchr(w, ' '))) *end++ = 0;
    order[n] = n;
    word[n++] = w;
  }
  do {
    mn_rng_shuffle(rng, order, (size_t)n);
    for (int k = 0; k < n; k++) before[k] = word[order[k]];
  } while (n > 1 && !memcmp(before, word, (size_t)n * sizeof *word));
  for (int k = 0; k < n; k++) mn_text_addf(&out, "%s%s", k ? " " : "", before[k]);
  mn_text_add(&out, colon);
  free(copy);
  MN_TRY(mn_text_status(&out));
  mn_text_free(text);
  *text = out;
  return MN_OK;
}

mn_status mn_vignette_change(mn_rng *rng, int control, mn_text *text) {
  static const char *const pairs[][2] = {{"Clara", "Peter"}, {"asked her", "asked him"}, {"told her", "told him"},
                                         {" her ", " his "}, {" she ", " he "},          {" She ", " He "}};
  MN_TRY(mn_text_status(text));
  if (control == MN_CONTROL_COMMA) return replace_all(text, ":", ",");
  if (control == MN_CONTROL_PREFACE || control == MN_CONTROL_PROMPT) return shuffle_words(rng, text);
  for (size_t i = 0; control == MN_CONTROL_PROTAGONIST && i < sizeof pairs / sizeof *pairs; i++)
    MN_TRY(replace_all(text, pairs[i][0], pairs[i][1]));
  return MN_OK;
}
