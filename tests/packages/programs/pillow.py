# projects: pillow
import hashlib
from io import BytesIO

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, features

image = Image.new("RGB", (120, 80), "navy")
draw = ImageDraw.Draw(image)
draw.ellipse((10, 10, 70, 70), fill="orange", outline="white", width=3)
draw.text((30, 30), "Text é", font=ImageFont.load_default(14), fill="yellow")
for kind, words in (
    ("PNG", {}),
    ("JPEG", {"quality": 85}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("GIF", {}),
    ("JPEG2000", {}),
    ("AVIF", {}),
):
    file = BytesIO()
    image.save(file, kind, **words)
    again = Image.open(BytesIO(file.getvalue()))
    again.load()
    print(
        kind,
        len(file.getvalue()),
        again.size,
        again.mode,
        hashlib.sha256(again.tobytes()).hexdigest()[:16],
    )
small = (
    image.resize((37, 23), Image.Resampling.LANCZOS)
    .rotate(30, expand=True)
    .filter(ImageFilter.GaussianBlur(1))
)
print(hashlib.sha256(small.tobytes()).hexdigest(), ImageChops.difference(image, image).getbbox())
print(
    image.convert("L").histogram()[:8], [name for name in features.get_supported() if name != "xcb"]
)
