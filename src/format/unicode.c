/* unicode.c - see unicode.h. */
#include "format/unicode.h"

#include "format/unicode_table.h"

#include <pthread.h>
#include <string.h>
#include <utf8proc.h>

enum { POINTS = 0x110000, BLOCK = 256, BLOCKS = POINTS / BLOCK };

/* The ranges laid out for look-up, once: a block of 256 code points that are all alike costs nothing but its category. */
static uint8_t category_of[POINTS / BLOCK][BLOCK];
static pthread_once_t laid_out = PTHREAD_ONCE_INIT;

static void lay_out(void) {
  for (int i = 0; i < mn_unicode_n_ranges; i++) {
    uint32_t first = mn_unicode_ranges[i] >> 5, end = i + 1 < mn_unicode_n_ranges ? mn_unicode_ranges[i + 1] >> 5 : POINTS;
    memset(&category_of[0][0] + first, (int)(mn_unicode_ranges[i] & 31), end - first);
  }
}

mn_category mn_unicode_category(uint32_t c) {
  pthread_once(&laid_out, lay_out);
  return c < POINTS ? (mn_category)category_of[c / BLOCK][c % BLOCK] : MN_CAT_CN;
}

#define BIT(x)      (1u << MN_CAT_##x)
#define LETTERS     (BIT(LU) | BIT(LL) | BIT(LT) | BIT(LM) | BIT(LO))
#define MARKS       (BIT(MN) | BIT(MC) | BIT(ME))
#define PUNCTUATION (BIT(PC) | BIT(PD) | BIT(PS) | BIT(PE) | BIT(PI) | BIT(PF) | BIT(PO))

uint32_t mn_category_mask(const char *name, size_t n) {
  static const struct {
    const char *name, *full;
    uint32_t mask;
  } names[] = {{"L", "Letter", LETTERS},
               {"M", "Mark", MARKS},
               {"N", "Number", BIT(ND) | BIT(NL) | BIT(NO)},
               {"P", "Punctuation", PUNCTUATION},
               {"S", "Symbol", BIT(SM) | BIT(SC) | BIT(SK) | BIT(SO)},
               {"Z", "Separator", BIT(ZS) | BIT(ZL) | BIT(ZP)},
               {"C", "Other", BIT(CC) | BIT(CF) | BIT(CO) | BIT(CS) | BIT(CN)},
               {"Lu", "Uppercase_Letter", BIT(LU)},
               {"Ll", "Lowercase_Letter", BIT(LL)},
               {"Lt", "Titlecase_Letter", BIT(LT)},
               {"Lm", "Modifier_Letter", BIT(LM)},
               {"Lo", "Other_Letter", BIT(LO)},
               {"Mn", "Nonspacing_Mark", BIT(MN)},
               {"Mc", "Spacing_Mark", BIT(MC)},
               {"Me", "Enclosing_Mark", BIT(ME)},
               {"Nd", "Decimal_Number", BIT(ND)},
               {"Nl", "Letter_Number", BIT(NL)},
               {"No", "Other_Number", BIT(NO)},
               {"Pc", "Connector_Punctuation", BIT(PC)},
               {"Pd", "Dash_Punctuation", BIT(PD)},
               {"Ps", "Open_Punctuation", BIT(PS)},
               {"Pe", "Close_Punctuation", BIT(PE)},
               {"Pi", "Initial_Punctuation", BIT(PI)},
               {"Pf", "Final_Punctuation", BIT(PF)},
               {"Po", "Other_Punctuation", BIT(PO)},
               {"Sm", "Math_Symbol", BIT(SM)},
               {"Sc", "Currency_Symbol", BIT(SC)},
               {"Sk", "Modifier_Symbol", BIT(SK)},
               {"So", "Other_Symbol", BIT(SO)},
               {"Zs", "Space_Separator", BIT(ZS)},
               {"Zl", "Line_Separator", BIT(ZL)},
               {"Zp", "Paragraph_Separator", BIT(ZP)},
               {"Cc", "Control", BIT(CC)},
               {"Cf", "Format", BIT(CF)},
               {"Co", "Private_Use", BIT(CO)},
               {"Cs", "Surrogate", BIT(CS)},
               {"Cn", "Unassigned", BIT(CN)},
               {"Punct", "punct", PUNCTUATION}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if ((strlen(names[i].name) == n && !memcmp(names[i].name, name, n)) || (strlen(names[i].full) == n && !memcmp(names[i].full, name, n)))
      return names[i].mask;
  return 0;
}

void mn_unicode_category_ranges(uint32_t mask, mn_range_fn add, void *ctx) {
  for (int i = 0; i < mn_unicode_n_ranges; i++) {
    if (!(mask >> (mn_unicode_ranges[i] & 31) & 1)) continue;
    add(ctx, mn_unicode_ranges[i] >> 5, (i + 1 < mn_unicode_n_ranges ? mn_unicode_ranges[i + 1] >> 5 : POINTS) - 1);
  }
}

bool mn_unicode_script_ranges_of(const char *name, size_t n, mn_range_fn add, void *ctx) {
  for (int k = 0; mn_unicode_scripts[k]; k++) {
    if (strlen(mn_unicode_scripts[k]) != n || memcmp(mn_unicode_scripts[k], name, n)) continue;
    for (int i = 0; i < mn_unicode_n_script_ranges; i++)
      if (mn_unicode_script_ranges[i].script == k) add(ctx, mn_unicode_script_ranges[i].first, mn_unicode_script_ranges[i].last);
    return true;
  }
  return false;
}

bool mn_unicode_space(uint32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  return c == 0x85 || mn_unicode_in(c, BIT(ZS) | BIT(ZL) | BIT(ZP));
}

static bool circled_letter(uint32_t c) {
  return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

bool mn_unicode_word(uint32_t c) {
  return mn_unicode_in(c, LETTERS | MARKS | BIT(ND) | BIT(NL) | BIT(PC)) || c == 0x200C || c == 0x200D || circled_letter(c);
}

static bool among(const uint32_t (*ranges)[2], int n, uint32_t c) { /* sorted */
  int low = 0;
  while (n > 0) {
    int half = n / 2;
    if (c > ranges[low + half][1]) {
      low += half + 1;
      n -= half + 1;
    } else if (c >= ranges[low + half][0]) {
      return true;
    } else {
      n = half;
    }
  }
  return false;
}

bool mn_unicode_accent(uint32_t c) {
  if (c < 0x300) return false;
  return (c == 0x1CF2 || c == 0x1CF3 || mn_unicode_in(c, MARKS)) && !among(mn_unicode_later_accents, mn_unicode_n_later_accents, c);
}

bool mn_unicode_nonspacing(uint32_t c) {
  if (c < 0x300) return false;
  return (c == 0x1734 || c == 0x1171E || mn_unicode_in(c, BIT(MN))) &&
         !among(mn_unicode_later_nonspacing, mn_unicode_n_later_nonspacing, c);
}

uint32_t mn_unicode_lower(uint32_t c) {
  static const uint32_t later[][2] = {{0x1C89, 0x1C8A}, {0xA7CB, 0x264},  {0xA7CC, 0xA7CD}, {0xA7CE, 0xA7CF},
                                      {0xA7D2, 0xA7D3}, {0xA7D4, 0xA7D5}, {0xA7DA, 0xA7DB}, {0xA7DC, 0x19B}}; /* Unicode 16 and 17 */
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  if (c == 0x130) return c;
  if (c >= 0x10D50 && c <= 0x10D65) return c + 0x20;
  if (c >= 0x16EA0 && c <= 0x16EB8) return c + 0x1B;
  for (size_t i = 0; c >= 0x1C89 && c <= 0xA7DC && i < sizeof later / sizeof *later; i++)
    if (later[i][0] == c) return later[i][1];
  return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

size_t mn_utf8_put(char out[4], uint32_t c) {
  if (c < 0x80) return out[0] = (char)c, 1;
  size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  for (size_t i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
  out[0] = (char)((0xF00 >> n & 0xFF) | c);
  return n;
}
