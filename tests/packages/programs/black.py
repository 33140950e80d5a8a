# projects: black click mypy-extensions packaging pathspec platformdirs pytokens typing-extensions
# writes: Grammar.txt PatternGrammar.txt
import os
from importlib.resources import files

from blib2to3 import pygram

# Black opens these beside `__file__` when it is imported, so from no zip can it be as it is.
place = pygram.__file__
for name in ("Grammar.txt", "PatternGrammar.txt"):
    if not os.path.exists(os.path.join(os.path.dirname(place), name)):
        with open(name, "wb") as file:
            file.write(files("blib2to3").joinpath(name).read_bytes())
        pygram.__file__ = os.path.abspath("pygram")

import black  # noqa: E402

pygram.__file__ = place
source = '''
def f( a,b = {'x':1,  'y' : [1,2,3]} ):
    """  Text.  """
    return a if b  else lambda q : q**2
class A( object,): x : int=5 # a comment
match  f:
    case {"a":1, **rest} if rest: pass
with open("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa") as a, open("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb") as b: pass
'''
mode = black.Mode(target_versions={black.TargetVersion.PY311})
text = black.format_str(source, mode=mode)
print(text, black.format_str(text, mode=mode) == text, black.__version__)
try:
    black.format_str("def f(:", mode=mode)
except black.InvalidInput as error:
    print(error)
print(black.__file__.rpartition(".")[2])
