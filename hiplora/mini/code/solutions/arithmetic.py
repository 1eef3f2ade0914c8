"""Functions of the code benchmark: arithmetic. Read as text; the doctests are the cases that a solution must pass."""


def add(a, b):
    """Return the sum of a and b.

    >>> add(2, 3)
    5
    >>> add(-4, 4)
    0
    >>> add(10, 25)
    35
    >>> add(0.5, 0.25)
    0.75
    """
    return a + b


def multiply(a, b):
    """Return the product of a and b.

    >>> multiply(2, 3)
    6
    >>> multiply(-4, 5)
    -20
    >>> multiply(0, 9)
    0
    >>> multiply(7, 8)
    56
    """
    return a * b


def square(x):
    """Return the square of x.

    >>> square(3)
    9
    >>> square(-5)
    25
    >>> square(0)
    0
    >>> square(12)
    144
    """
    return x * x


def is_even(n):
    """Return True if n is even, otherwise False.

    >>> is_even(4)
    True
    >>> is_even(7)
    False
    >>> is_even(0)
    True
    >>> is_even(-3)
    False
    """
    return n % 2 == 0


def absolute(x):
    """Return the absolute value of x.

    >>> absolute(-3)
    3
    >>> absolute(5)
    5
    >>> absolute(0)
    0
    >>> absolute(-17)
    17
    """
    return abs(x)


def larger(a, b):
    """Return the larger of a and b.

    >>> larger(2, 9)
    9
    >>> larger(7, 1)
    7
    >>> larger(-3, -8)
    -3
    >>> larger(4, 4)
    4
    """
    return max(a, b)


def factorial(n):
    """Return the factorial of n.

    >>> factorial(5)
    120
    >>> factorial(0)
    1
    >>> factorial(1)
    1
    >>> factorial(7)
    5040
    """
    result = 1
    for i in range(2, n + 1):
        result *= i
    return result


def fibonacci(n):
    """Return the n-th Fibonacci number, where fibonacci(0) is 0 and fibonacci(1) is 1.

    >>> fibonacci(6)
    8
    >>> fibonacci(0)
    0
    >>> fibonacci(1)
    1
    >>> fibonacci(10)
    55
    """
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def greatest_common_divisor(a, b):
    """Return the greatest common divisor of a and b.

    >>> greatest_common_divisor(12, 18)
    6
    >>> greatest_common_divisor(7, 5)
    1
    >>> greatest_common_divisor(9, 3)
    3
    """
    while b:
        a, b = b, a % b
    return a


def is_prime(n):
    """Return True if n is a prime number, otherwise False.

    >>> is_prime(7)
    True
    >>> is_prime(1)
    False
    >>> is_prime(9)
    False
    >>> is_prime(2)
    True
    >>> is_prime(97)
    True
    """
    return n > 1 and all(n % i != 0 for i in range(2, n))


def digit_sum(n):
    """Return the sum of the digits of the non-negative integer n.

    >>> digit_sum(123)
    6
    >>> digit_sum(0)
    0
    >>> digit_sum(909)
    18
    """
    return sum(int(digit) for digit in str(n))


def clamp(x, low, high):
    """Return x limited to the range from low to high.

    >>> clamp(15, 0, 10)
    10
    >>> clamp(-2, 0, 10)
    0
    >>> clamp(5, 0, 10)
    5
    """
    return max(low, min(x, high))


def rectangle_area(width, height):
    """Return the area of a rectangle.

    >>> rectangle_area(3, 4)
    12
    >>> rectangle_area(5, 5)
    25
    >>> rectangle_area(0, 7)
    0
    """
    return width * height


def celsius_to_fahrenheit(celsius):
    """Convert a temperature from Celsius to Fahrenheit.

    >>> celsius_to_fahrenheit(100)
    212.0
    >>> celsius_to_fahrenheit(0)
    32.0
    >>> celsius_to_fahrenheit(-40)
    -40.0
    """
    return celsius * 9 / 5 + 32


def sum_to(n):
    """Return the sum of the integers from 1 to n.

    >>> sum_to(4)
    10
    >>> sum_to(1)
    1
    >>> sum_to(100)
    5050
    """
    return n * (n + 1) // 2
