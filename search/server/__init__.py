"""`waldo serve`: the page and its API, over HTTP; a thin face of the Python API.

`application` has the routes. `worker` asks the index, one search at a time. `request_bodies` reads
what is asked, `objects` turns it into a query, `replies` turns answers into JSON, and `drawings`
makes the pictures. `listing` is the collection, photo by photo; `uploads` keeps what is sent;
`recurring` has the objects that recur; `safety` decides who may ask. The page itself is in
`static`. Starlette and uvicorn, the extra `serve`, are imported by the functions that need them.
"""
