"""The MCP server of this example, on http://127.0.0.1:8096/mcp. Only for trying it out.

pip install 'mcp>=2.3,<3' && python examples/stock-mcp/server.py
"""

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

STOCK = {"hinge": 120, "bolt": 850, "washer": 2300, "bracket": 64, "hook": 15, "screw": 4100, "nail": 990, "dowel": 310}
server = MCPServer("warehouse")


@server.tool()
def stock(item: str) -> int:
    """Tells how many pieces of an item are in stock. The item is in the singular."""
    if (name := item.strip().lower()) not in STOCK:
        # The model reads this; of other exceptions it is told nothing.
        raise ToolError(f"no item {item!r}; there are: {', '.join(STOCK)}")
    return STOCK[name]


@server.tool()
def reorder(item: str, pieces: int) -> str:
    """Buys more of an item."""
    raise ToolError(f"{pieces} {item}: nobody should come here")


if __name__ == "__main__":
    server.run(transport="streamable-http", host="127.0.0.1", port=8096)
