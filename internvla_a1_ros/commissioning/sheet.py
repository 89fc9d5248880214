"""The sheet with the board, as it is printed: the board, its sizes in words, and a length to check the printer by."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from internvla_a1_ros.commissioning.charuco import Board

_MARGIN_M = 0.008
_FOOT_M = 0.012
_CHECK_M = 0.1
_INCH_M = 0.0254


def draw_sheet(board: Board, dpi: int) -> Image.Image:
    """Return the sheet, grey, `dpi` dots an inch; squares are whole dots, so that the board is off by less than half a dot a square."""
    dots = dpi / _INCH_M
    square = round(board.square_m * dots)
    drawn = Image.fromarray(board.picture(square))
    margin, foot = round(_MARGIN_M * dots), round(_FOOT_M * dots)
    sheet = Image.new("L", (drawn.width + 2 * margin, drawn.height + 2 * margin + foot), 255)
    sheet.paste(drawn, (margin, margin))
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(max(round(0.0035 * dots), 8))
    top = margin + drawn.height + foot // 2
    pen.text((margin, top), f"{board}. Print at 100 %; measure a square and say it with --square-mm.", fill=0, font=font, anchor="lm")
    line = top + foot // 2
    end = margin + round(_CHECK_M * dots)
    pen.line((margin, line, end, line), fill=0, width=max(round(0.0004 * dots), 1))
    for x in (margin, end):
        pen.line((x, line - foot // 8, x, line + foot // 8), fill=0, width=max(round(0.0004 * dots), 1))
    pen.text((end + foot // 4, line), f"{_CHECK_M * 1e3:g} mm", fill=0, font=font, anchor="lm")
    return sheet
