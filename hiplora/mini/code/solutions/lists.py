"""Functions of the code benchmark: lists. Read as text; the doctests are the cases that a solution must pass."""


def total(numbers):
    """Return the sum of all the numbers in the list.

    >>> total([1, 2, 3])
    6
    >>> total([])
    0
    >>> total([-2, 5])
    3
    >>> total([10, 20, 30, 40])
    100
    """
    return sum(numbers)


def largest(numbers):
    """Return the largest number in the list.

    >>> largest([3, 9, 2])
    9
    >>> largest([-5, -1])
    -1
    >>> largest([4])
    4
    """
    return max(numbers)


def smallest(numbers):
    """Return the smallest number in the list.

    >>> smallest([3, 9, 2])
    2
    >>> smallest([-5, -1])
    -5
    >>> smallest([4])
    4
    """
    return min(numbers)


def average(numbers):
    """Return the average of the numbers in the list.

    >>> average([1, 2, 3])
    2.0
    >>> average([10])
    10.0
    >>> average([1, 2])
    1.5
    """
    return sum(numbers) / len(numbers)


def length(items):
    """Return the number of items in the list.

    >>> length([5, 6, 7])
    3
    >>> length([])
    0
    >>> length(['a'])
    1
    """
    return len(items)


def first_item(items):
    """Return the first item of the list.

    >>> first_item([5, 6, 7])
    5
    >>> first_item(['a', 'b'])
    'a'
    >>> first_item([0])
    0
    """
    return items[0]


def last_item(items):
    """Return the last item of the list.

    >>> last_item([5, 6, 7])
    7
    >>> last_item(['a', 'b'])
    'b'
    >>> last_item([0])
    0
    """
    return items[-1]


def unique(items):
    """Return the items without repeats, in the order of their first appearance.

    >>> unique([1, 2, 1, 3])
    [1, 2, 3]
    >>> unique([])
    []
    >>> unique(['b', 'a', 'b'])
    ['b', 'a']
    """
    found = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def flatten(lists):
    """Return one list with all the items of the lists, in order.

    >>> flatten([[1, 2], [3]])
    [1, 2, 3]
    >>> flatten([])
    []
    >>> flatten([[], [4]])
    [4]
    """
    return [item for inner in lists for item in inner]


def even_numbers(numbers):
    """Return a list of the even numbers.

    >>> even_numbers([1, 2, 3, 4])
    [2, 4]
    >>> even_numbers([1])
    []
    >>> even_numbers([0, -2, 5])
    [0, -2]
    """
    return [n for n in numbers if n % 2 == 0]


def sorted_descending(numbers):
    """Return the numbers sorted from largest to smallest.

    >>> sorted_descending([1, 3, 2])
    [3, 2, 1]
    >>> sorted_descending([])
    []
    >>> sorted_descending([5, 5, 9])
    [9, 5, 5]
    """
    return sorted(numbers, reverse=True)


def second_largest(numbers):
    """Return the second largest of the distinct numbers in the list.

    >>> second_largest([4, 9, 7])
    7
    >>> second_largest([1, 2])
    1
    >>> second_largest([5, 5, 3])
    3
    """
    return sorted(set(numbers))[-2]


def running_total(numbers):
    """Return the list of sums of the first 1, 2, 3 ... numbers.

    >>> running_total([1, 2, 3])
    [1, 3, 6]
    >>> running_total([])
    []
    >>> running_total([5, -5])
    [5, 0]
    """
    totals = []
    current = 0
    for number in numbers:
        current += number
        totals.append(current)
    return totals


def common_items(first, second):
    """Return the items of the first list that are also in the second list.

    >>> common_items([1, 2, 3], [2, 3, 4])
    [2, 3]
    >>> common_items([1], [])
    []
    >>> common_items([5, 6], [6, 5])
    [5, 6]
    """
    return [item for item in first if item in second]


def chunks(items, size):
    """Split the list into lists of the given size. The last one may be shorter.

    >>> chunks([1, 2, 3, 4, 5], 2)
    [[1, 2], [3, 4], [5]]
    >>> chunks([], 3)
    []
    >>> chunks([1, 2], 5)
    [[1, 2]]
    """
    return [items[i : i + size] for i in range(0, len(items), size)]


def swap_pair(pair):
    """Return the pair with its two items swapped.

    >>> swap_pair((1, 2))
    (2, 1)
    >>> swap_pair(('a', 'b'))
    ('b', 'a')
    >>> swap_pair((0, 0))
    (0, 0)
    """
    first, second = pair
    return second, first
