# SPDX-License-Identifier: MIT
"""The demonstration's picture: who ran what when, and what it cost over the floor.

One SVG file that any browser shows. No scripts: tooltips are <title> elements.
"""
import dataclasses
import html
import math

WIDTH = 1240
LEFT = 104  # room for the workers' names
PLOT = 650  # the time axis
CHART_LEFT = 920
CHART = WIDTH - CHART_LEFT - 56
HEAD = 96
SECTION_HEAD = 56
LANE_HEAD = 26
LANE_GAP = 16
LANE_MOST = 112  # more workers get thinner rows, not a longer picture
ROW_MOST = 22
SECTION_FOOT = 84
FOOT = 80

INK, GREY, PALE, GRID, RED = "#1a1d21", "#5c6670", "#f0f2f4", "#dde1e5", "#c8102e"


@dataclasses.dataclass
class Event:
    """One task on one worker; times in seconds since the pool was opened."""
    worker: int
    task: int
    items: int
    start: float
    end: float


@dataclasses.dataclass
class Lane:
    """What one pool did, and how the same jobs went in pools of other sizes; times in seconds."""
    name: str
    dark: str  # neighbours' colours, to be told apart in grey too
    light: str
    workers: int
    took: float
    floor: float
    forks: float  # bare forks with the jobs dealt out beforehand
    alone: float  # the same jobs on one core
    events: list[Event]
    curve: dict[int, float]  # pool size: times the floor


@dataclasses.dataclass
class Section:
    """One job: its pools share an axis, on which the floor of each is 1."""
    title: str
    subtitle: str
    lanes: list[Lane]


class Drawing:
    """Lines of SVG; everything that is text is escaped here."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def rect(self, x: float, y: float, width: float, height: float, fill: str,
             title: str = "", extra: str = "") -> None:
        inside = f"<title>{html.escape(title)}</title>" if title else ""
        self.parts.append(f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" '
                          f'height="{height:.2f}" fill="{fill}" {extra}>{inside}</rect>')

    def line(self, points: list[tuple[float, float]], stroke: str, width: float = 1,
             extra: str = "") -> None:
        path = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{stroke}" '
                          f'stroke-width="{width}" {extra}/>')

    def floor_line(self, points: list[tuple[float, float]]) -> None:
        self.line(points, RED, 1.8, 'stroke-dasharray="5 3"')

    def forks_line(self, points: list[tuple[float, float]]) -> None:
        self.line(points, INK, 1.8, 'stroke-dasharray="1.8 2.6"')

    def dot(self, x: float, y: float, fill: str, title: str) -> None:
        self.parts.append(f'<circle cx="{x:.2f}" cy="{y:.2f}" r="4" fill="{fill}" stroke="#fff" '
                          f'stroke-width="1.5"><title>{html.escape(title)}</title></circle>')

    def text(self, x: float, y: float, text: str, size: float = 13, fill: str = INK,
             anchor: str = "start", weight: str = "normal", extra: str = "") -> None:
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" '
                          f'text-anchor="{anchor}" font-weight="{weight}" {extra}>'
                          f'{html.escape(text)}</text>')

    def svg(self, height: float) -> str:
        head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
                f'width="{WIDTH}" height="{height:.0f}" '
                'font-family="Helvetica, Arial, sans-serif">')
        background = f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>'
        return "\n".join([head, background, *self.parts, "</svg>"]) + "\n"


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from low to high: steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * n for n in (1, 2, 5, 10) if (high - low) / (power * n) <= most)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


# ---- The timelines ----

def row_height(lane: Lane) -> float:
    return min(ROW_MOST, LANE_MOST / lane.workers)


def lane_height(lane: Lane) -> float:
    return LANE_HEAD + row_height(lane) * lane.workers


def lanes_height(section: Section) -> float:
    return (sum(map(lane_height, section.lanes)) + LANE_GAP * (len(section.lanes) - 1))


def draw_event(drawing: Drawing, lane: Lane, event: Event, scale: float, y: float,
               height: float, dark: bool) -> None:
    items = f" ({event.items} items)" if event.items > 1 else ""
    length = event.end - event.start
    title = f"task {event.task}{items}: {length * 1e3:.2f} ms, from {event.start * 1e3:.2f} ms"
    drawing.rect(LEFT + event.start * scale, y, max(length * scale, 0.4), height,
                 lane.dark if dark else lane.light, title)


def draw_rows(drawing: Drawing, lane: Lane, scale: float, top: float) -> None:
    height = row_height(lane)
    gap = 1.5 if height > 6 else 0.3
    workers = sorted({event.worker for event in lane.events})
    for row in range(lane.workers):
        y = top + row * height
        drawing.rect(LEFT, y + gap, lane.took * scale, height - 2 * gap, PALE)
        if height >= 11:
            drawing.text(LEFT - 8, y + height / 2 + 4, f"worker {row + 1}", 11, GREY, "end")
        if row >= len(workers):
            continue  # it had nothing to do
        mine = sorted((e for e in lane.events if e.worker == workers[row]), key=lambda e: e.start)
        for n, event in enumerate(mine):
            draw_event(drawing, lane, event, scale, y + gap, height - 2 * gap, n % 2 == 0)


def draw_lane(drawing: Drawing, lane: Lane, scale: float, y: float) -> None:
    bottom = y + lane_height(lane)
    end = LEFT + lane.took * scale
    busy = sum(event.end - event.start for event in lane.events) / lane.workers / lane.took
    drawing.text(LEFT, y + 16, lane.name, 14, lane.dark, weight="bold")
    drawing.text(LEFT + PLOT, y + 16,
                 f"{lane.took:.3f} s, one core {lane.alone:.3f} s: {lane.alone / lane.took:.2f} "
                 f"times faster; workers busy {busy:.0%}", 12, GREY, "end")
    draw_rows(drawing, lane, scale, y + LANE_HEAD)
    top = y + LANE_HEAD - 3
    for seconds, draw_line in (lane.forks, drawing.forks_line), (lane.floor, drawing.floor_line):
        x = LEFT + seconds * scale
        draw_line([(x, top), (x, bottom + 3)])
    drawing.line([(end, top), (end, bottom + 3)], lane.dark, 2)
    drawing.text(LEFT + PLOT + 14, (y + LANE_HEAD + bottom) / 2 + 6,
                 f"{lane.took / lane.floor:.2f}×", 17, lane.dark, weight="bold")


def draw_axis(drawing: Drawing, span: float, scale: float, top: float, bottom: float) -> None:
    for tick in ticks(0, span, 8):
        x = LEFT + tick * scale
        drawing.line([(x, top), (x, bottom + 5)], GRID)
        drawing.text(x, bottom + 20, f"{tick:g}", 12, GREY, "middle")
    drawing.line([(LEFT, bottom), (LEFT + PLOT, bottom)], GREY)
    drawing.text(LEFT + PLOT / 2, bottom + 38, "time since the pool was opened, in floors", 12,
                 GREY, "middle")


def draw_timelines(drawing: Drawing, section: Section, top: float) -> float:
    """Returns where they end, without the axis."""
    bottom = top + lanes_height(section) + 6
    span = 1.02 * max(max(lane.floor, lane.took, lane.forks) / lane.floor
                      for lane in section.lanes)
    scale = PLOT / span
    draw_axis(drawing, span, scale, top + LANE_HEAD - 4, bottom)
    y = top
    for lane in section.lanes:
        draw_lane(drawing, lane, scale / lane.floor, y)
        y += lane_height(lane) + LANE_GAP
    return bottom


# ---- The charts ----

@dataclasses.dataclass
class Chart:
    """Where things are: sizes of pools on one axis, times the floor on the other."""
    place_x: dict[int, float]
    top: float
    bottom: float
    low: float
    high: float

    def place_y(self, over: float) -> float:
        return self.bottom - (over - self.low) / (self.high - self.low) * (self.bottom - self.top)


def make_chart(section: Section, top: float, bottom: float) -> Chart:
    sizes = list(section.lanes[0].curve)
    values = [over for lane in section.lanes for over in lane.curve.values()]
    step = CHART / max(1, len(sizes) - 1)
    return Chart({size: CHART_LEFT + i * step for i, size in enumerate(sizes)}, top, bottom,
                 low=min(0.9, *values) - 0.05, high=1.05 * max(1.4, *values))


def draw_grid(drawing: Drawing, chart: Chart) -> None:
    left, right = CHART_LEFT - 10, CHART_LEFT + CHART + 10
    for tick in ticks(chart.low, chart.high, 6):
        y = chart.place_y(tick)
        drawing.line([(left, y), (right, y)], GRID)
        drawing.text(left - 7, y + 4, f"{tick:g}", 12, GREY, "end")
    for size, x in chart.place_x.items():
        drawing.text(x, chart.bottom + 20, str(size), 12, GREY, "middle")
    drawing.line([(left, chart.bottom), (right, chart.bottom)], GREY)
    drawing.floor_line([(left, chart.place_y(1)), (right, chart.place_y(1))])
    drawing.text(right + 4, chart.place_y(1) + 4, "floor", 11, RED)


def draw_curve(drawing: Drawing, lane: Lane, chart: Chart) -> None:
    points = [(chart.place_x[size], chart.place_y(over)) for size, over in lane.curve.items()]
    drawing.line(points, lane.dark, 2.2, 'stroke-linejoin="round"')
    for (x, y), (size, over) in zip(points, lane.curve.items(), strict=True):
        drawing.dot(x, y, lane.dark, f"{lane.name}, pool of {size}: {over:.2f} times the floor")


def draw_chart(drawing: Drawing, section: Section, top: float, bottom: float) -> None:
    chart = make_chart(section, top + LANE_HEAD, bottom)
    drawing.text(CHART_LEFT - 28, top + 16, "Times the floor, by size of the pool", 14,
                 weight="bold")
    drawing.text(CHART_LEFT + CHART / 2, bottom + 38, "workers in the pool", 12, GREY, "middle")
    draw_grid(drawing, chart)
    for lane in reversed(section.lanes):  # the first on top
        draw_curve(drawing, lane, chart)


# ---- All of it ----

def draw_section(drawing: Drawing, section: Section, y: float) -> None:
    drawing.text(LEFT, y + 20, section.title, 18, weight="bold")
    drawing.text(LEFT, y + 40, section.subtitle, 13, GREY)
    bottom = draw_timelines(drawing, section, y + SECTION_HEAD)
    draw_chart(drawing, section, y + SECTION_HEAD, bottom)


def draw_legend(drawing: Drawing, lanes: list[Lane], y: float) -> None:
    for n, lane in enumerate(lanes):
        drawing.rect(LEFT + 32 * n, y, 14, 13, lane.dark)
        drawing.rect(LEFT + 32 * n + 14, y, 14, 13, lane.light)
    x = LEFT + 32 * len(lanes) + 8
    drawing.floor_line([(LEFT, y + 30), (x - 12, y + 30)])
    drawing.forks_line([(LEFT, y + 53), (x - 12, y + 53)])
    for n, line in enumerate((
            "One rectangle is one task, whatever its shade: point at it for its number and time. "
            "Grey: the worker has none.",
            "The floor: an even share of the work, as measured on one core in the same language, "
            "or the longest task. Only noise is faster.",
            "Bare forks, as many as workers, the tasks dealt out beforehand: what the machine "
            "gives without any pool.")):
        drawing.text(x, y + 11 + 23 * n, line, 12.5, GREY)


def draw(title: str, subtitle: str, sections: list[Section]) -> str:
    """The whole picture as SVG text."""
    drawing = Drawing()
    drawing.text(LEFT, 44, title, 26, weight="bold")
    drawing.text(LEFT, 68, subtitle, 14, GREY)
    y: float = HEAD
    for section in sections:
        draw_section(drawing, section, y)
        y += SECTION_HEAD + lanes_height(section) + SECTION_FOOT
    draw_legend(drawing, sections[0].lanes, y - 12)
    return drawing.svg(y + FOOT)
