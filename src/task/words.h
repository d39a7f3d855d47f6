/* words.h - the fixed words of text tasks: the noise sentences and the lists that keys and values are drawn from. */
#ifndef MN_TASK_WORDS_H
#define MN_TASK_WORDS_H

/* The five noise sentences of passkey retrieval, one block without a final space. */
extern const char mn_words_noise[];
enum { MN_ADJECTIVES = 100, MN_NOUNS = 160 };
extern const char *const mn_adjectives[MN_ADJECTIVES];
extern const char *const mn_nouns[MN_NOUNS];

#endif
