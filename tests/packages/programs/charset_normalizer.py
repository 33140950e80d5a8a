# projects: charset-normalizer
import charset_normalizer
from charset_normalizer import from_bytes, md

texts = {
    "cp1251": "Всички хора се раждат свободни и равни по достойнство и права.",
    "utf_8": "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "big5": "人人生而自由,在尊嚴和權利上一律平等。他們賦有理性和良心,並應以兄弟關係的精神相對待。",
}
for encoding, text in texts.items():
    best = from_bytes((text * 5).encode(encoding)).best()
    print(
        best.encoding,
        best.language,
        best.alphabets,
        str(best) == text * 5,
        best.could_be_from_charset,
    )
print(md.mess_ratio("Ã©Ã¨Ã  text", 1.0).__round__(6), charset_normalizer.__version__)
# The package has md.py and the compiled one, which a folder takes.
print(md.__file__.rpartition(".")[2])
