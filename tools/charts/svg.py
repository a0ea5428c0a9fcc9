"""Pictures as SVG, written as text: the same calls give the same file anywhere."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from st_modules.demo.drawings import Sketch

INK, FAINT, ACCENT, SECOND = "#1f2430", "#6b7280", "#3f51b5", "#e08a1e"


class Picture:
    """A picture with a white ground, to which shapes are added from the back to the front.

    Args:
        width: Its width in pixels.
        height: Its height.
        title: What it shows, in a sentence.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self._lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="sans-serif" font-size="13" role="img" aria-label={quoteattr(title)}>',
            f"<title>{escape(title)}</title>",
        ]
        self.rectangle(0, 0, width, height, "white")

    def rectangle(self, x: float, y: float, width: float, height: float, fill: str, edge: str = "none") -> None:
        """Add a rectangle."""
        self._lines.append(
            f'<rect x="{_write(x)}" y="{_write(y)}" width="{_write(width)}" height="{_write(height)}" rx="2" '
            f'fill="{fill}" stroke="{edge}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        colour: str = INK,
        anchor: str = "start",
        size: int = 13,
        bold: bool = False,
    ) -> None:
        """Add a line of text; `y` is where its letters stand."""
        weight = ' font-weight="bold"' if bold else ""
        self._lines.append(
            f'<text x="{_write(x)}" y="{_write(y)}" fill="{colour}" text-anchor="{anchor}" font-size="{size}"{weight}>'
            f"{escape(words)}</text>"
        )

    def arrow(self, x: float, y: float, length: float) -> None:
        """Add an arrow that points down."""
        end = y + length
        self._lines.append(
            f'<path d="M{_write(x)} {_write(y)}V{_write(end)}m-4 -5l4 5l4 -5" fill="none" stroke="{FAINT}"/>'
        )

    def sketch(self, x: float, y: float, side: float, sketch: Sketch) -> None:
        """Add a drawing in the middle of a square."""
        width, height = sketch.size
        self._lines.append(
            f'<svg x="{_write(x)}" y="{_write(y)}" width="{_write(side)}" height="{_write(side)}" '
            f'viewBox="0 0 {width} {height}">'
        )
        edge = f'stroke="{FAINT}" stroke-width="{_write(width / side)}"'
        self._lines.append(f'<rect width="{width}" height="{height}" fill="{_mix(sketch.ground)}" {edge}/>')
        for stroke in sketch.strokes:
            if stroke.is_disc:
                (left, top), (right, bottom) = stroke.points
                place = f'cx="{_write((left + right) / 2)}" cy="{_write((top + bottom) / 2)}"'
                self._lines.append(f'<circle {place} r="{_write((right - left) / 2)}" fill="{_mix(stroke.fill)}"/>')
            else:
                corners = " ".join(f"{_write(px)},{_write(py)}" for px, py in stroke.points)
                self._lines.append(f'<polygon points="{corners}" fill="{_mix(stroke.fill)}"/>')
        self._lines.append("</svg>")

    def write(self) -> str:
        """Return the file's content."""
        return "\n".join([*self._lines, "</svg>", ""])


def _write(number: float) -> str:
    return f"{round(number, 1):g}"


def _mix(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
