# projects: regex
import regex

print(regex.findall(r"\p{Lu}\p{Ll}+", "Ähnlich Österreich über Ελλάς"), regex.__version__)
print(regex.fullmatch(r"(?:(\w)(?=.*\1))+.*", "abcabc").captures(1))
print(regex.search(r"(?:needle){e<=2}", "a hay neddl stack").fuzzy_counts)
print(regex.sub(r"(?<year>\d{4})-(?<month>\d\d)", r"\g<month>/\g<year>", "2026-11 and 2025-12"))
print(
    regex.match(r"\((?:[^()]|(?R))*\)", "(a(b)c(d(e)))").group(),
    regex.split(r"(?V1)(?=[A-Z])", "oneTwoThree"),
)
try:
    regex.compile(r"(unclosed")
except regex.error as error:
    print(error)
